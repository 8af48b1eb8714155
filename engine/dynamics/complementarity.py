"""stand-in while developing (numpy-like)"""
from typing import NamedTuple
import jax, jax.numpy as jnp
from jax import Array, lax
from engine.xla.packed import pairs, packed, unpacked
class Solution(NamedTuple):
    matrix: Array
    residual: Array
    iterations: Array
def solve(linear, gram, count, start):
    K=len(linear); there=jnp.arange(K)<count; block=jnp.outer(there,there)
    rows,cols=pairs(K); w=jnp.where(rows==cols,1.,2.)
    A=jnp.where(block,linear,jnp.diag(jnp.where(there,0.,1.)))
    g=jnp.where(jnp.outer(packed(block),packed(block)),gram,0)
    scale=jnp.max(jnp.abs(jnp.diag(g)))+1e-300
    L=jnp.linalg.norm(g)/scale*2+1e-9
    g=g/scale
    def B(X): return unpacked(g@(packed(X)*w))
    def proj(X):
        v,V=jnp.linalg.eigh(X); return (V*jnp.maximum(v,0))@V.T
    def body(i,c):
        X,Z,t=c
        Xn=proj(Z-(A+B(Z))/L); tn=(1+jnp.sqrt(1+4*t*t))/2
        # restart
        Zn=Xn+(t-1)/tn*(Xn-X)
        bad=jnp.sum((Z-Xn)*(Xn-X))>0
        return Xn,jnp.where(bad,Xn,Zn),jnp.where(bad,1.,tn)
    X0=proj(jnp.where(block,start,0)*scale)
    X,_,_=lax.fori_loop(0,3000,body,(X0,X0,1.0))
    r=jnp.linalg.norm(X-proj(X-(A+B(X))))
    return Solution(X/scale,r,jnp.array(0))
