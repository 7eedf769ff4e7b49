"""The subcommands of `mjx`, each imported only when it runs."""
