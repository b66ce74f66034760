"""Do the latents that are found matter, and more than others like them?"""
