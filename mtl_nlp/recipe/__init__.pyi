from .schema import Recipe as Recipe
