"""Is the deployed file what it claims to be?"""
