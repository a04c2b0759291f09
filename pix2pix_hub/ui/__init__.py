"""The app: `page.build_demo` makes the page, `serve.serve` is `python app.py`. Gradio is imported with `page` only."""
