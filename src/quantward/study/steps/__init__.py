"""The kinds of steps a study is made of: one file each."""
