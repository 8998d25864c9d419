"""The command line: a module per topic contains its commands and their options. `main.main` is the entry point."""
