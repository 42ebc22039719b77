"""Catalogue of mixings of heads on the command line: list them, describe one.

python -m mha.mixing                            # all, a line each
python -m mha.mixing 'differential(init=0.2)'   # one spec described
"""

from mha import mixing
from mha.views.catalogue import command

if __name__ == '__main__':
    command.of_variants(mixing)
