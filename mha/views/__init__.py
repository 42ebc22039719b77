"""What people look at: reports of finished runs, catalogues of schemes and tasks."""
