"""
Worked examples: one page each, and the scripts that they need besides the commands. docs/applications.md lists them.

May import everything; nothing imports it.
"""
