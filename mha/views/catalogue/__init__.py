"""Schemes and tasks described from their code: in the terminal, and as docs/schemes.md and docs/tasks.md."""
