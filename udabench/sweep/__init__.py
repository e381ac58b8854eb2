"""Many runs from one command: what to run, who runs it, and what became of it. Everything is read from run folders."""
