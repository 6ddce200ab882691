"""How Go programs run here: a machine has two processors for all that the tests start.

Each collects garbage seldom: that is a fifth of all that they do otherwise, and their tests are short. And each runs on one
processor at a time: their schedulers look for work on all others, which is another fifth on a node with many pods.
"""

SERVER = {"GOGC": "400", "GOMAXPROCS": "1"}  # with up to five times what is in use
# kubectl packs and parses the texts of its help at each start, in French the fewest: 33 ms instead of 50.
COMMAND = {"GOGC": "off", "GOMAXPROCS": "1", "LC_MESSAGES": "fr_FR.UTF-8"}
