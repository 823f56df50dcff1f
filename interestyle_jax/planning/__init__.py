"""What a run needs on a machine that is not here, asked of that machine's own compiler."""
