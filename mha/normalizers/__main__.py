"""Catalogue of normalizers on the command line: list them, describe one.

python -m mha.normalizers                       # all, a line each
python -m mha.normalizers 'sink("query")'       # one spec described
"""

from mha import normalizers
from mha.views.catalogue import command

if __name__ == '__main__':
    command.of_variants(normalizers)
