"""A traced network as data: capture, build, simulate. The only room that knows torch's operators."""
