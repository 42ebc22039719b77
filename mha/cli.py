"""How the scripts meet the command line: flags in, mistakes out as one line with exit code 2."""

import sys
from collections.abc import Callable

from absl import flags

from mha.spec import UserError


def run(main: Callable[[], None]) -> None:
    """Parses the flags and calls `main`. A mistake of the user ends the program with one line on stderr and exit code
    2; anything else is a defect and keeps its traceback."""
    try:
        try:
            rest = flags.FLAGS(sys.argv)[1:]
        except (flags.Error, AttributeError, KeyError) as error:  # the latter two: a misspelt key of the config
            raise UserError(_one_line(error)) from error
        if rest and not getattr(main, 'takes_arguments', False):
            raise UserError(f'unexpected argument {rest[0]!r} - flags are written --name=value')
        main(*rest)
    except UserError as error:
        print(f'{sys.argv[0]}: {_one_line(error)}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('\ninterrupted - the same command resumes', file=sys.stderr)
        sys.exit(130)


def _one_line(error: Exception) -> str:
    text = str(error.args[0]) if error.args else str(error)
    return ' '.join(text.split())
