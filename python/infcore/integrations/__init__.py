"""infcore inside other people's servers. Each module needs its own extra, and says which."""
