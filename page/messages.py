"""
What the page says to a visitor.
"""

import contextlib
import html
import re

import gradio as gr

from command_line.errors import explain
from command_line.run import out_of_memory
from utils import InputError

ADVICE = re.compile(r"(^|\s)--[a-z]|translate\.py|^If you trust|^To train")  # is in such sentences


@contextlib.contextmanager
def readable_errors():
    """Shows an error that a person can do something about as one sentence. It is text: the page would take it as HTML."""
    try:
        yield
    except (InputError, OSError, RuntimeError, MemoryError) as error:
        raise gr.Error(html.escape(what_is_wrong(error), quote=False), print_exception=False, duration=20)


def what_is_wrong(error):
    """An error that a person can do something about -> one sentence. Raises others again."""
    if isinstance(error, (InputError, OSError)):
        return in_words(error)
    if isinstance(error, (RuntimeError, MemoryError)) and out_of_memory(error):
        return "out of memory. Try a smaller size"
    raise error


def failed(error):
    """Shows an error as readable_errors does, and -> HTML that stays on the page after the pop-up is gone."""
    message = what_is_wrong(error)
    gr.Warning(html.escape(message, quote=False), title="Error", duration=20)
    return f'<p class="failed" role="alert">{html.escape(message)}</p>'


def in_words(error):
    """The message of an InputError or OSError for a visitor"""
    return without_advice(explain(error) if isinstance(error, OSError) else str(error))


def without_advice(message):
    """A message without the sentences on the command line, which a visitor does not have, and on training"""
    first, *others = message.split(". ")
    text = ". ".join([first, *(sentence for sentence in others if not ADVICE.search(sentence))])
    return f"{text}. Try a smaller size" if text.endswith(": out of memory") else text


def paragraphs(lines):
    """Lines of text -> HTML"""
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)
