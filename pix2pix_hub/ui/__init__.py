"""The app: `page.build_demo` makes the page, `serve.serve` shows it. Gradio is imported with `page` only."""
