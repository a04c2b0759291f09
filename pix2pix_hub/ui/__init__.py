"""The app: `page.build_demo` makes the page, `serve.serve` is `pix2pix-hub app`. Gradio is imported with `page` only."""
