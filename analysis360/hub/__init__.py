"""The Hugging Face Hub: repositories pinned to commits, files read by ranges or brought one ahead.

Nothing here knows what a checkpoint or a chunk is. What is downloaded lies in a cache folder of this
package's own; the user's Hugging Face cache is read and never changed.
"""
