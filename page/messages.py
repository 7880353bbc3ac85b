"""
What the page says to a visitor.
"""

import contextlib
import html

import gradio as gr

from command_line.errors import explain
from command_line.run import out_of_memory
from utils import InputError


@contextlib.contextmanager
def readable_errors():
    """Shows an error that a person can do something about as one sentence. It is text: the page would take it as HTML."""
    try:
        yield
    except (InputError, OSError) as error:
        message = in_words(error)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        message = "out of memory. Try a smaller size"
    else:
        return
    raise gr.Error(html.escape(message, quote=False), print_exception=False, duration=20)


def in_words(error):
    """The message of an InputError or OSError for a visitor"""
    return explain(error) if isinstance(error, OSError) else str(error)


def paragraphs(lines):
    """Lines of text -> HTML"""
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)
