"""Whether what was given can be right, and the sentence that says what to write instead."""
