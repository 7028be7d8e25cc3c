"""The subcommands of ``segmamba`` that train, judge and compare: one file a command."""
