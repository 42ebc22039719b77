"""Views for people: reports of finished runs, catalogues of schemes and tasks."""
