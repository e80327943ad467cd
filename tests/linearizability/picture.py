def draw(window, title):
    return ""
