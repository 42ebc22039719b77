"""The machine: its devices and processes, and where compiled programs and prepared data are kept."""
