import os

from coordinator import compiled

if os.environ.get(compiled.VARIABLE) == "always":  # before anything of what is compiled is imported
    compiled.use()
