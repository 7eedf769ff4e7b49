"""The one exception for what a user can mend."""


class InputError(ValueError):
    """Something that was given cannot work: a config value, a file, a mesh, a checkpoint.

    The message is a sentence that names the thing, its value and what would be right. The command
    line prints it without a traceback and exits with code 2; anything else is a bug and shows its
    traceback. It is a `ValueError`, so that a config's `__post_init__` can raise it and the config
    loader can add the key's path.
    """
