"""The processor and the machine around it: limits, use by others, facts."""
