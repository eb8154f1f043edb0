"""The published data sets, each in the layout that its publishers (or ISDNet's authors) gave it. No data is shipped."""
