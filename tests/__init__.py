from coordinator import compiled

compiled.settle()  # before anything of what is compiled is imported
