"""How often Go programs collect garbage here: it is a fifth of all that they do otherwise, and their tests are short."""

SERVER = {"GOGC": "400"}  # with up to five times what is in use
COMMAND = {"GOGC": "off"}
