"""Models in the browser: a folder of static files, with no server behind it."""
