import sys, time
from tests.simulation.world import World
for seed in range(int(sys.argv[1]), int(sys.argv[2])):
    t=time.perf_counter()
    f=World(seed, events=int(sys.argv[3]), show=len(sys.argv)>4).run()
    print(seed, f.events, f.digest, f"{time.perf_counter()-t:.2f}s", f"{f.virtual_s:.1f} virtual", f.failures[:3])
print(f.count)
