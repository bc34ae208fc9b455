"""Networks published elsewhere, read into ours."""
