"""How Go programs run here: a machine has two processors for all that the tests start.

Each collects garbage seldom: that is a fifth of all that they do otherwise, and their tests are short. And each runs on one
processor at a time: their schedulers look for work on all others, which is another fifth on a node with many pods.
"""

SERVER = {"GOGC": "400", "GOMAXPROCS": "1"}  # with up to five times what is in use
COMMAND = {"GOGC": "off", "GOMAXPROCS": "1"}
