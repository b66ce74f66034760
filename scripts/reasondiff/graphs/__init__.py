"""Attribution graphs: which latents, through which of one another, make a model say its next token."""
