"""
The page of app.py: translating, watching and comparing in a browser.

    models_found  the runs and checkpoints that the page offers; no name from a browser is used as a path
    translate     an uploaded file -> the file that translate.py writes
    watch         what a run has logged so far: curves, health, remaining time, sample grids
    compare       one picture through every kept checkpoint of a run
    handlers      what the buttons do: connects the modules above with Gradio
    guard         which requests of a browser are answered

Only handlers and app.py know Gradio. May import everything below the commands; does not import the commands.
"""
