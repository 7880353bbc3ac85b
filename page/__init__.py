"""
The page of app.py: translating, watching and comparing in a browser.

    models_found  the runs and checkpoints that the page offers; no name from a browser is used as a path
    translate     an uploaded file -> the file that translate.py writes
    watch         what a run has logged so far: curves, health, remaining time, sample grids
    compare       one picture through every kept checkpoint of a run
    handlers, watch_handlers   what the buttons do: connect the modules above with Gradio
    messages      errors and notes, as visitors see them
    guard         which requests of a browser are answered
    serve         starts the page; slider.js moves a slider of it by keys

Only handlers, watch_handlers, messages, serve and app.py know Gradio. May import deploy and everything below it.
"""
