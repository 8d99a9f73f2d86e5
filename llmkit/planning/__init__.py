"""What a training needs, known before anything is loaded."""
