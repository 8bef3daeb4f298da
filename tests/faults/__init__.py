"""The laboratory: every operation meets every fault, and one judge says whether a promise was broken.

`make faults` runs all of it, `make test-thorough` a share. In the order of the work:

fault           what a fault is: which operation it strikes, at which request to the store, and how
fault_lists     all of them, made from operations, places and ways to fail; which of them belong to CI
laboratory      the small world in which the operations run, behind a store and a PostgreSQL that fail on demand
small_world     what is smaller and quicker there than in life
other_workers   operations in processes of their own, and clocks that are wrong
replica         a replica that fails, and what must be true of it
strikes         what each way to fail does in that world
judge           what must be true after every fault
running         one fault, from its beginning to the judge
soak            random operations for as long as wanted, and whether all is as before
report          docs/promises.md, made from what the runs wrote down
"""
