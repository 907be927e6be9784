"""The command line: `app` with the commands, one file a command or family, and how it speaks (`console`)."""
