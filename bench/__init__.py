from coordinator import compiled

compiled.use_where_asked()  # before anything of what is compiled is imported
