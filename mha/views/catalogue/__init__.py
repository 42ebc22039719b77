"""Catalogues of schemes and tasks, made from their code: in the terminal, and as docs/schemes.md and docs/tasks.md."""
