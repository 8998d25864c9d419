"""The command line: a module per topic, with each command beside its options. `main.main` is the entry point."""
