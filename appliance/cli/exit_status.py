"""What a command's exit status says; 0 is success."""

EXIT_FAILURE = 1
EXIT_USAGE = 2
"""The arguments or the configuration are wrong; nothing was touched. (click uses it too.)"""
