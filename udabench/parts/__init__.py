"""What two or more methods share: losses, teachers, self-training, projectors. Each is usable alone."""
