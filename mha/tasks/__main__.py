"""Catalogue of tasks on the command line: list them, describe one, show samples of it.

python -m mha.tasks                                          # all tasks, a line each
python -m mha.tasks 'name(argument=value)' --length=12       # one task described, and readable samples
python -m mha.tasks --docs                                   # writes docs/tasks.md
"""

from mha.views.catalogue import command

if __name__ == '__main__':
    command.tasks()
