"""Files that a result can be had as, for the tools that people already use."""
