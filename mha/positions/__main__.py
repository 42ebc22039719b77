"""Catalogue of position schemes on the command line: list them, describe one, draw it.

python -m mha.positions                                     # all schemes, a line each
python -m mha.positions 'name(argument=value)|name'         # one spec described
python -m mha.positions 'name' --picture=FILE.png           # and its heatmap as a picture
python -m mha.positions --docs                              # writes docs/schemes.md and its pictures
"""

from mha.views.catalogue import command

if __name__ == '__main__':
    command.positions()
