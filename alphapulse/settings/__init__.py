"""How the settings of `config` are read and which of them can be."""
